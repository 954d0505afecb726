"""What setup.cfg cannot say: model_cards/ is installed as pess_hf/model_cards/, beside every package that is found."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["pess_hf", "pess_hf.*"]), "pess_hf.model_cards"],
    package_dir={"pess_hf.model_cards": "model_cards"},
)
