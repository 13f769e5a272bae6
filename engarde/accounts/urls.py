"""Addresses of the accounts room, below /api/."""

from django.urls import path

from engarde.accounts import views

urlpatterns = [
    path("auth/login", views.LoginView.as_view()),
    path("auth/refresh", views.RefreshView.as_view()),
    path("auth/logout", views.LogoutView.as_view()),
    path("auth/me", views.MeView.as_view()),
    path("auth/password", views.PasswordView.as_view()),
    path("auth/password-reset", views.PasswordResetView.as_view()),
    path("auth/password-reset/confirm", views.PasswordResetConfirmView.as_view()),
    path("tenant", views.TenantView.as_view()),
    path("members", views.MembersView.as_view()),
    path("members/<id:user_id>", views.MemberView.as_view()),
    path("brands", views.BrandsView.as_view()),
    path("brands/<id:brand_id>", views.BrandView.as_view()),
    path("api-keys", views.ApiKeysView.as_view()),
    path("api-keys/<id:key_id>", views.ApiKeyView.as_view()),
    path("api-keys/<id:key_id>/rotate", views.ApiKeyRotateView.as_view()),
]
