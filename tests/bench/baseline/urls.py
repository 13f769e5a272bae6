from rest_framework.routers import SimpleRouter

from tests.bench.baseline.views import ItemViewSet

router = SimpleRouter(trailing_slash=False)
router.register("items", ItemViewSet, basename="baseline-item")
urlpatterns = router.urls
