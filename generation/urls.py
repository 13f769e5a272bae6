"""Addresses of the generation room, below /api/."""

from django.urls import path

from generation import views

urlpatterns = [
    path("llm-keys", views.KeysView.as_view()),
    path("llm-keys/events", views.KeyEventsView.as_view()),
    path("llm-keys/<str:provider>", views.KeyView.as_view()),
    path("llm-keys/<str:provider>/verify", views.VerifyKeyView.as_view()),
    path("content/generate", views.GenerateView.as_view()),
    path("content/generate-batch", views.BatchView.as_view()),
    path("content/generation-jobs", views.JobsView.as_view()),
    path("content/generation-jobs/<id:job_id>", views.JobView.as_view()),
    path("content/generation-jobs/<id:job_id>/items", views.JobItemsView.as_view()),
    path("content/generation-jobs/<id:job_id>/resume", views.ResumeJobView.as_view()),
    path("content/generation-jobs/<id:job_id>/retry", views.RetryJobView.as_view()),
]
