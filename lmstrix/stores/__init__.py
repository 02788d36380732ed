"""Stores: where trials and reports are kept. Each does what `lmstrix.ports.Store` promises."""
