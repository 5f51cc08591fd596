"""split_dump_ssim: like dump_ssim7, for chunks of 24 frames, with two actors for each.

Actor n compares one half, 12 frames, of chunk n // 2; both decode all of it. The number of its report
is n plus twice the offset, as if the chunks had 12 frames.
"""

from mu.pipelines.judging import Judging, shared


class SplitDumpSsim(Judging):
    name = "split_dump_ssim"
    description = "Compare the output of an xcenc7 job with the original, in halves of 12 frames."
    parameters = shared("sintel-1k-y4m_24", 16)
    half_frames = 12


split_dump_ssim = SplitDumpSsim()
