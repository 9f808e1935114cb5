"""Synthetic users on Locust: they drive the page's socket, the machine wire, or a backend itself.

The gevent edge. Imports `webapp.core` (and the clock) only, never Django: measuring is done by the code that the page
measures with. Start it with plain `locust -f loadtests/locustfile.py`, or with a file of parameters by
`manage.py load`.
"""
