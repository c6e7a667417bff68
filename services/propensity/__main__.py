"""Run the propensity service."""

import sys

from segue.rpc.serve import main
from services.propensity.settings import PropensitySettings

if __name__ == "__main__":
    sys.exit(main("services.propensity.service:Propensity", PropensitySettings))
