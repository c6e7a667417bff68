"""Segue's plug-ins for Feast. Importing any module here imports Feast, which takes seconds: servers must not."""
