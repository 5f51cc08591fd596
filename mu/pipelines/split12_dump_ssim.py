"""split12_dump_ssim: like split_dump_ssim, for both outputs of xcenc with chunks of 12 frames.

Actor n compares one half, 6 frames, of chunk n // 2: of first_<q>, then of out_<q>, both decoded from
the state of the chunk before.
"""

from mu.pipelines.judging import VPX, XC, Judging, shared


class Split12DumpSsim(Judging):
    name = "split12_dump_ssim"
    description = "Compare both outputs of an xcenc job with the original, in halves of 6 frames."
    parameters = shared("sintel-1k-y4m_12", 8)
    encoded = (VPX, XC)
    half_frames = 6


split12_dump_ssim = Split12DumpSsim()
