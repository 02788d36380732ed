"""For tests with LMStrix and for plug-in authors: simulated models, a stand-in server and sample
facts. `lmstrix.testing.contracts` has a pytest suite for each plug-in family.
"""

from lmstrix.testing.simulated import Beyond, SimulatedAdapter, SimulatedModel

__all__ = ["Beyond", "SimulatedAdapter", "SimulatedModel"]
