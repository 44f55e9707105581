from collections import defaultdict
from tests.jsonapi import strategies
from tests.jsonapi.test_generated import *  # noqa
old = strategies.Wire.__init__
def init(self, world):
    old(self, world)
    self.ids = defaultdict(lambda: [1], self.ids)
    self.types = [t for t in self.types if not t.name.startswith(("job", "hook"))]
    self.routes = [r for r in self.routes if not r[0].startswith(("/v1/job", "/v1/hook"))]
strategies.Wire.__init__ = init
