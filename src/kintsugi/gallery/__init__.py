"""The gallery: every corruption at every severity beside the clean sample, in one file that opens offline."""

from kintsugi.gallery.page import gallery, write_gallery

__all__ = ["gallery", "write_gallery"]
