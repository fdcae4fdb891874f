"""Publish LoRAs with a model card, keep copies of a run, fetch weights, and see what a download would cost."""

from musubi.hub.download import Download, Downloads, plan_download, pull
from musubi.hub.page import card
from musubi.hub.publish import Api, push, stage
from musubi.hub.uploads import UploadCallback

__all__ = ["Api", "Download", "Downloads", "UploadCallback", "card", "plan_download", "pull", "push", "stage"]
