"""Shoppers: many at a time, each browsing and buying through the JSON edge, and a history of all they did."""
