#!/bin/sh
# Run once by the PostgreSQL image, when the volume is empty: the platform's own role is no superuser, as row security does not
# hold those back. The superuser is left without a password: it is let in inside the container only.
set -eu
psql --quiet --set ON_ERROR_STOP=1 --set password="$POSTGRES_PASSWORD" --username "$POSTGRES_USER" --dbname postgres <<'SQL'
CREATE ROLE engarde LOGIN CREATEDB PASSWORD :'password';
CREATE DATABASE engarde OWNER engarde;
ALTER DATABASE engarde SET random_page_cost = 1.1;
ALTER ROLE CURRENT_USER PASSWORD NULL;
SQL
