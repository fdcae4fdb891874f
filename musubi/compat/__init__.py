"""Read what musubi-tuner made: its dataset files and its caches, as they are and where they are."""

from musubi.compat.cache_folder import import_cache
from musubi.compat.dataset_file import load_dataset_file, load_datasets, notes, parse
from musubi.compat.dataset_table import ReferenceDataset
from musubi.compat.image_table import ReferenceImages
from musubi.compat.video_table import ReferenceVideos

__all__ = [
    "ReferenceDataset",
    "ReferenceImages",
    "ReferenceVideos",
    "import_cache",
    "load_dataset_file",
    "load_datasets",
    "notes",
    "parse",
]
