from setuptools import find_packages, setup

# Everything else is in pyproject.toml. The configs are installed as `atss/configs`.
setup(
    packages=[*find_packages("projects/ATSS"), "atss.configs"],
    package_dir={"": "projects/ATSS", "atss.configs": "configs"},
    package_data={"atss": ["py.typed"], "atss.report": ["page.html", "page.css"], "atss.configs": ["*.yaml"]},
    py_modules=["atss_cli"],
)
