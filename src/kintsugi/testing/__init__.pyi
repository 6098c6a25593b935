"""What is public; see ``core.lazy``."""

from kintsugi.testing.changed import changed_methods as changed_methods
from kintsugi.testing.claim_figures import Measured as Measured
from kintsugi.testing.claim_figures import measure_claims as measure_claims
from kintsugi.testing.fixture import Fixture as Fixture
from kintsugi.testing.holding import hold as hold
from kintsugi.testing.promises import CHECKS as CHECKS
from kintsugi.testing.promises import check_method as check_method
from kintsugi.testing.promises import round_trip as round_trip
from kintsugi.testing.toys import ROWS as ROWS
from kintsugi.testing.toys import mixed as mixed
from kintsugi.testing.toys import toy as toy
from kintsugi.testing.trials import ask as ask
from kintsugi.testing.trials import build as build
from kintsugi.testing.trials import data_for as data_for
from kintsugi.testing.trials import everything as everything
from kintsugi.testing.trials import fitted as fitted
from kintsugi.testing.trials import subsets as subsets
from kintsugi.testing.trials import train as train
