"""Customers and engines learned from logs: cloning, MAIL, and their relatives.

`data` holds pages, `cloning` fits by maximum likelihood, `mail` against a discriminator, `linear`
is a family whose chance of a purchase is linear in the action, `ensemble` keeps several, `items`
sees what is on the page.
"""
