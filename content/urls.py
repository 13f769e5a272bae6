"""Addresses of the content room, below /api/."""

from django.urls import include, path

from content import views
from content.activity_views import ActivityView

urlpatterns = [
    path("content", views.ContentListView.as_view()),
    path("content/bulk", views.BulkView.as_view()),
    path("content/export", views.ExportView.as_view()),
    path("content/", include("content.media.urls")),
    path("content/<id:content_id>", views.ContentView.as_view()),
    path("content/<id:content_id>/restore", views.UndeleteView.as_view()),
    path("content/<id:content_id>/versions", views.VersionsView.as_view()),
    path("content/<id:content_id>/versions/<int:version>", views.VersionView.as_view()),
    path("content/<id:content_id>/versions/<int:version>/diff", views.DiffView.as_view()),
    path("content/<id:content_id>/versions/<int:version>/restore", views.RestoreVersionView.as_view()),
    path("content/<path:rest>", views.NothingView.as_view()),
    path("activity", ActivityView.as_view()),
    path("", include("content.webhooks.urls")),
]
