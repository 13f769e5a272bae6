"""Addresses of the quotas room, below /api/."""

from django.urls import path

from quotas import views

urlpatterns = [
    path("content/quota", views.SummaryView.as_view()),
    path("content/quota/history", views.HistoryView.as_view()),
    path("content/quota/check", views.CheckView.as_view()),
    path("content/quota/alert-targets", views.AlertTargetsView.as_view()),
    path("content/quota/alert-targets/<id:target_id>", views.AlertTargetView.as_view()),
    path("content/quota/alert-targets/<id:target_id>/test", views.AlertTargetTestView.as_view()),
]
