# %% [markdown]
# # How much context does this model really handle?
#
# A notebook in jupytext's percent format: open it with Jupyter and jupytext, or turn it into one
# with `jupytext --to ipynb examples/notebook.py`. Cells await at their top level; the kernel's
# event loop runs them.

# %%
import os

from lmstrix import LMStrix, MeasureOptions
from lmstrix.demo import fetch_demo_model

# %% [markdown]
# Set `LMSTRIX_EXAMPLE_GGUF` to the path of a GGUF file, or let the demo model be fetched. With
# `LMSTRIX_EXAMPLE_QUICK` the measurement stops at 1024 tokens.

# %%
model = os.environ.get("LMSTRIX_EXAMPLE_GGUF") or str(await fetch_demo_model(announce=print))
quick = bool(os.environ.get("LMSTRIX_EXAMPLE_QUICK"))
options = MeasureOptions(max_context=1024, certify=False, levels=()) if quick else MeasureOptions()

# %%
async with LMStrix(store="memory") as lmstrix:
    report = await lmstrix.find_true_context(model, options)

# %%
print(f"declared {report.declared_context}")
print(f"loadable {report.loadable_context}")
print(f"true {report.true_context} ({report.cause})")

# %% [markdown]
# The evidence at every length, with 95 % Wilson intervals:

# %%
for point in report.curve:
    low, high = point.wilson.low, point.wilson.high
    print(
        f"{point.length_tokens:>7} tokens: {point.passes} of {point.trials} right "
        f"({low:.0%} to {high:.0%}), {point.verdict}"
    )
