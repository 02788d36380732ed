"""For those who test with LMStrix or extend it: simulated models, a stand-in server,
sample facts, and a contract suite for each plug-in family.
"""
