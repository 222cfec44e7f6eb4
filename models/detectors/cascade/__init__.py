"""A three-level cascade of small networks that finds faces (Li, Lin, Shen, Brandt and Hua, CVPR 2015).

Every level classifies windows, calibrates those that light up, and filters overlaps. Arithmetic: `pyramid.py`,
`calibration.py`, `overlaps.py`, `batching.py`. Networks: `shapes.py`, as ONNX `export.py`; Keras only trains them.
"""
