"""Run the propensity service."""

from segue.rpc.serve import main
from services.propensity import bundles
from services.propensity.settings import PropensitySettings

if __name__ == "__main__":
    main("services.propensity.service:Propensity", PropensitySettings, check=bundles.agreed)
