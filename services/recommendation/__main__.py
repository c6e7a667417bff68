"""Run the recommendation service."""

from segue.rpc.serve import main
from services.recommendation import bundles
from services.recommendation.settings import RecommendationSettings

if __name__ == "__main__":
    main("services.recommendation.service:Recommendation", RecommendationSettings, check=bundles.agreed)
