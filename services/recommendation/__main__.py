"""Run the recommendation service."""

import sys

from segue.rpc.serve import main
from services.recommendation.settings import RecommendationSettings

if __name__ == "__main__":
    sys.exit(main("services.recommendation.service:Recommendation", RecommendationSettings))
