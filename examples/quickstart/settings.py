"""The fleet file of the quickstart, as a user would write it."""

FLEET = """\
# Two tasks, six models. `semaforo check fleet.yaml` says what each of them is worth.
tasks:
  digits:                                    # what clients ask for: which digit is this?
    inputs:  {image: fp32[64]}               # one row; requests may send many
    outputs: {label: int64, probabilities: fp32[10]}
    prefer:  {minimise: cost, keep_quality: 0.97}   # the cheapest that is nearly as good as the best
    deadline: 1s
    evaluate: digits-test.npz                # `semaforo evaluate digits` measures every variant on it

  tumour:                                    # are these cells malignant?
    inputs:  {cells: fp32[30]}
    outputs: {malignant: bool}
    prefer:  {maximise: quality, within: 50ms}      # the best that answers in time
    evaluate: tumour-test.npz

devices:
  cpu: {price: 0.04/h}                       # a local model costs its device-seconds at this price

models:
  digits-linear:
    task: digits
    source: models/digits-linear             # <version>/model.onnx; quality.json beside it holds what was measured
  digits-net:
    task: digits
    source: models/digits-net
    replicas: 2
    isolation: process                       # processes of their own; a crash takes nobody along
  digits-large:
    task: digits
    source: models/digits-large
    variants: {fp32: model.onnx, int8: model.int8.onnx}

  tumour-linear:
    task: tumour
    source: models/tumour-linear
    adapter: &kind                           # the model says 0 for malignant, the task says true
      outputs: {malignant: {from: label, scale: -1, offset: 1, dtype: bool}}
  tumour-forest:
    task: tumour
    source: models/tumour-forest
    sees: [public]                           # say it runs outside of the clinic: no private data for it
    adapter: *kind
  tumour-rule:
    task: tumour
    python: rule.py:tumour                   # a Python function; batches are made for it
    quality: RULE_QUALITY

aliases: {best-digits: digits-large}
journal: journal.bin                         # `semaforo replay` decides everything once more from it
"""
