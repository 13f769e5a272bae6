"""Addresses of media files, below /api/content/."""

from django.urls import path

from content.media import views

urlpatterns = [
    path("media", views.MediaListView.as_view()),
    path("media/<id:media_id>", views.MediaView.as_view()),
    path("media/<id:media_id>/download", views.DownloadView.as_view()),
    path("media/<id:media_id>/thumbnail", views.ThumbnailView.as_view()),
]
