"""One small but real implementation of each interface keeps its contract."""

from samples import suites


class TestMagnitude(suites.MagnitudeSuite):
    pass


class TestAbsMax(suites.AbsMaxSuite):
    pass


class TestActivationRange(suites.ActivationRangeSuite):
    pass


class TestSoftmaxAttention(suites.SoftmaxAttentionSuite):
    pass


class TestTinyGPT(suites.TinyGPTSuite):
    pass


class TestPixelFlow(suites.PixelFlowSuite):
    pass


class TestBrightness(suites.BrightnessSuite):
    pass


class TestFlicker(suites.FlickerSuite):
    pass


class TestOneByOne(suites.OneByOneSuite):
    pass


class TestTrainingFree(suites.TrainingFreeSuite):
    pass
