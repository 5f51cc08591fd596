"""dump_ssim: compare both the first and the last output of an xcenc job with the original.

The job was one with `upload_states`. An actor reports on a chunk: on first_<q>, decoded by itself,
then on out_<q>, decoded from the state of the chunk before.
"""

from mu.pipelines.judging import VPX, XC, Judging, shared


class DumpSsim(Judging):
    name = "dump_ssim"
    description = "Compare the first and the last output of an xcenc job with the original chunks."
    parameters = shared("sintel-1k-y4m_06", 0)
    encoded = (VPX, XC)


dump_ssim = DumpSsim()
