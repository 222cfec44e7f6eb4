"""The feature cache, keyed by image content.

In a notebook: `cache = FeatureCache.open("out/cache")`, then `cache.features` and, row by row, `cache.face_labels`.
"""

from transforms.formats.cache.contents import Contents
from transforms.formats.cache.feature_cache import FeatureCache
from transforms.formats.cache.findings import Pruned, Report

__all__ = ["Contents", "FeatureCache", "Pruned", "Report"]
