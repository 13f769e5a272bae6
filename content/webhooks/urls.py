"""Addresses of webhooks, below /api/."""

from django.urls import path

from content.webhooks import views

ONE = "webhooks/<id:webhook_id>"

urlpatterns = [
    path("webhooks", views.WebhooksView.as_view()),
    path(ONE, views.WebhookView.as_view()),
    path(f"{ONE}/rotate-secret", views.RotateSecretView.as_view()),
    path(f"{ONE}/test", views.WebhookTestView.as_view()),
    path(f"{ONE}/deliveries", views.DeliveriesView.as_view()),
    path(f"{ONE}/deliveries/<id:delivery_id>", views.DeliveryView.as_view()),
    path(f"{ONE}/deliveries/<id:delivery_id>/replay", views.ReplayView.as_view()),
]
