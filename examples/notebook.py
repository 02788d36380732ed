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
from lmstrix.notebook import NotebookProgress, plot_report

# %% [markdown]
# Set `LMSTRIX_EXAMPLE_GGUF` to the path of a GGUF file, or let the demo model be fetched. With
# `LMSTRIX_EXAMPLE_QUICK` the measurement stops at 640 tokens.

# %%
model = os.environ.get("LMSTRIX_EXAMPLE_GGUF") or str(await fetch_demo_model(announce=print))
quick = bool(os.environ.get("LMSTRIX_EXAMPLE_QUICK"))
options = MeasureOptions(max_context=640, certify=False) if quick else MeasureOptions()

# %% [markdown]
# The output below this cell is redrawn while the model is measured. Without levels it is asked
# about facts alone, and does not have to write freely as well.

# %%
async with LMStrix(store="memory", levels=(), observers=[NotebookProgress()]) as lmstrix:
    report = await lmstrix.find_true_context(model, options)

# %%
print(f"declared {report.declared_context}")
print(f"loadable {report.loadable_context}")
print(f"true {report.true_context} ({report.cause})")

# %% [markdown]
# With this extension a report shows itself as a table, with the evidence at every length:

# %%
# %load_ext lmstrix.notebook
report

# %% [markdown]
# A chart shows the correct answers by length with their 95% Wilson intervals, the rate that passes,
# and, shaded, the bracket.

# %%
plot_report(report)
