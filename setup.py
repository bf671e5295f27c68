from setuptools import find_packages, setup

setup(
    name="atss",
    version="0.1.0",
    description="ATSS, Adaptive Training Sample Selection, on Detectron2",
    license="Apache-2.0",
    package_dir={"": "projects/ATSS"},
    packages=find_packages("projects/ATSS"),
    package_data={"atss.report": ["page.html", "page.css"], "atss.export": ["example.py"]},
    python_requires=">=3.11",
    # torch, torchvision and Detectron2 are left to the user, whose builds of them fit each other.
    install_requires=["fvcore", "jinja2", "matplotlib", "numpy", "pillow", "pycocotools", "pyyaml", "tqdm"],
    extras_require={"export": ["onnx", "onnxruntime", "onnxscript"]},
)
