"""The platform's addresses, and the baseline's below /baseline/."""

from django.urls import include, path

from engarde.urls import handler400, handler403, handler404, handler500, urlpatterns

__all__ = ["handler400", "handler403", "handler404", "handler500", "urlpatterns"]

urlpatterns = [path("baseline/", include("tests.bench.baseline.urls")), *urlpatterns]
