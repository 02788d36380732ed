"""Stores keep trials and reports. Each meets the obligations of `lmstrix.ports.Store`."""
