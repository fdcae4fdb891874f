"""Publish LoRAs with a model card, fetch weights, and see what a download would cost."""

from musubi.hub.download import Download, Downloads, plan_download, pull
from musubi.hub.page import card
from musubi.hub.publish import Api, push, stage

__all__ = ["Api", "Download", "Downloads", "card", "plan_download", "pull", "push", "stage"]
