"""The page: how a run looks and goes, in any browser, and the switches that change it while it goes on.

::

    pipeline ──write──▶ PageSink ──▶ Pictures ──▶ /stream.mjpg, /snapshot.png        the page itself: static/, no other host
    LiveStatistics ──once a second──▶ Monitor ──▶ /api/…, /metrics, /healthz         Look ◀── POST /api/look

It needs the extra ``web``; nothing of that is imported before :func:`open_page` is called.
"""

from __future__ import annotations

from edgesod.web.page import PageSink, open_page

__all__ = ["PageSink", "open_page"]
