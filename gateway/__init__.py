"""Modality worklist and IHE integration gateway.

Orders come in by HL7 v2, leave as a DICOM Modality Worklist, and MPPS reports come back.
Layers, each importing only from those to its left: domain <- wire <- workflow <- edges <- service <- cli.
"""
