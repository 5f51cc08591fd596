"""dump_ssim7: compare the output of an xcenc7 job with the original chunks.

The job was one with `upload_states`. An actor decodes a chunk from the state of the chunk before,
unless it begins with a key frame.
"""

from mu.pipelines.judging import Judging, shared


class DumpSsim7(Judging):
    name = "dump_ssim7"
    description = "Compare the output of an xcenc7 job with the original chunks."
    parameters = shared("sintel-1k-y4m_06", 16)


dump_ssim7 = DumpSsim7()
