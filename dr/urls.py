"""Addresses of the backup room, below /api/."""

from django.urls import path

from dr import item_views, views

urlpatterns = [
    path("content/<id:content_id>/restore-from-backup", item_views.RestoreFromBackupView.as_view()),
    path("admin/bigquery-sync/health", views.HealthView.as_view()),
    path("admin/bigquery-sync/metrics", views.MetricsView.as_view()),
    path("admin/bigquery-sync/runs", views.RunsView.as_view()),
    path("admin/bigquery-sync/findings", views.FindingsView.as_view()),
    path("admin/bigquery-sync/verifications", views.VerificationsView.as_view()),
    path("admin/bigquery-sync/drills", views.DrillsView.as_view()),
    path("admin/bigquery-sync/restores", views.RestoresView.as_view()),
    path("admin/bigquery-sync/trigger", views.TriggerView.as_view()),
    path("admin/bigquery-sync/pause", views.PauseView.as_view()),
    path("admin/bigquery-sync/resume", views.ResumeView.as_view()),
]
