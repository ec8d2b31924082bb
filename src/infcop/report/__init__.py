"""Accounting, tables, figures and the page: one ``RunRecord`` in, text or HTML out.

``summary``, ``spending`` and ``accounting`` need nothing beyond the core; ``page`` brings Jinja2
and plotly with it, so import it only where a page is written.
"""
