from setuptools import setup

setup(name="v6average", version="1.0.0", packages=["v6average"])
