"""Tests of the Overview plugin."""
