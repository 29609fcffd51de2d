"""`make demo SCENARIO=cascade`: tell the story, print the figures, and fail when one does not hold."""

from __future__ import annotations

import sys

from examples.cascade.story import CascadeStory
from examples.digits.__main__ import main

if __name__ == "__main__":
    sys.exit(main(CascadeStory, __doc__))
