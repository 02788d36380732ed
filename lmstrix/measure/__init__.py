"""Runs one measurement from ports alone; knows no concrete plug-in.

`run` has the phases from top to bottom; `state` is what they share; `trials` asks, retries and
stores; `engine` owns the one loaded model; `loading` finds the largest load; `levels` finds the
limits of other kinds of use; `report` turns the state into a report; `sweep` has the map and the
benchmark; `options` is what a caller may ask for.
"""
