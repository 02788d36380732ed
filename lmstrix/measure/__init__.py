"""Runs one measurement from ports alone; knows no concrete plug-in.

`measurement` is one from the outside, `opening` and `course` are its phases; `options` is what a
caller may ask for; `loading` finds the largest load; `instance` owns the one loaded model; `asking`
asks questions, retries, and remembers; `ledger` holds what is known; `levels` finds the limits of
other kinds of use in what was read; `reporting` turns all that into a report.
"""

from lmstrix.measure.benching import BenchOptions, BenchRun
from lmstrix.measure.forecast import Forecast
from lmstrix.measure.level import Level
from lmstrix.measure.mapping import MapOptions, MapRun
from lmstrix.measure.measurement import Measurement
from lmstrix.measure.options import MeasureOptions, RetryPolicy
from lmstrix.measure.reporting import unmeasured_report
from lmstrix.measure.watching import watch_measurement

__all__ = [
    "BenchOptions",
    "BenchRun",
    "Forecast",
    "Level",
    "MapOptions",
    "MapRun",
    "MeasureOptions",
    "Measurement",
    "RetryPolicy",
    "unmeasured_report",
    "watch_measurement",
]
