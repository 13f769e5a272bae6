"""Addresses of the content room, below /api/."""

from django.urls import path

from content import views

urlpatterns = [
    path("content", views.ContentListView.as_view()),
    path("content/<id:content_id>", views.ContentView.as_view()),
]
