"""The Beam graph of `label` and of filling the cache: a table of contents, one line per stage, no logic."""

from __future__ import annotations

from collections.abc import Sequence

import apache_beam as beam

from transforms.apply_head import ApplyHead
from transforms.block import BlockRef
from transforms.detect_faces import DetectFaces
from transforms.extract_features import ExtractFeatures
from transforms.find_cached import FindCached
from transforms.finish_run import FinishRun, MergeRequest
from transforms.job import Job
from transforms.read_blocks import ReadBlocks
from transforms.write_parts import WriteParts


def featured(root: beam.Pipeline, blocks: Sequence[BlockRef], job: Job) -> beam.PCollection:
    """Returns the blocks with features, and stores each in the cache."""
    read = ReadBlocks(job.reading, parts=job.writing.parts, heartbeat=job.heartbeat, provenance=job.provenance)
    extract = ExtractFeatures(job.features, job.cache, job.provenance, accelerator=job.accelerator)
    return (
        root
        | "ListBlocks" >> beam.Create(blocks)
        | "ReadBlocks" >> beam.ParDo(read)
        | "FindCached" >> beam.ParDo(FindCached(job.cache))
        | "DetectFaces" >> beam.ParDo(DetectFaces(job.detecting, job.provenance))
        | "ExtractFeatures" >> beam.ParDo(extract).with_resource_hints(**dict(job.hints))
    )


def label(root: beam.Pipeline, blocks: Sequence[BlockRef], job: Job, request: MergeRequest) -> beam.PCollection:
    """Returns the names of the final files, after they and `run.json` are written."""
    assert job.labelling is not None  # who asks for labels has chosen a head
    parts = (
        featured(root, blocks, job)
        | "ApplyHead" >> beam.ParDo(ApplyHead(job.labelling, job.provenance))
        | "WriteParts" >> beam.ParDo(WriteParts(job.writing, job.labelling.output))
    )
    return (
        root
        | "AskForMerge" >> beam.Create([request])
        | "FinishRun" >> beam.ParDo(FinishRun(), finished=beam.pvalue.AsIter(parts))
    )
