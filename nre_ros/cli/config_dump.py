"""``nre_ros config dump``: the parameters of a node as the YAML file that ROS reads."""

from __future__ import annotations

import argparse
import json
from itertools import takewhile

from nre_ros.config import BuilderNodeConfig, LocalizerNodeConfig, Parameter, Value, parameters

NODES: dict[str, tuple[str, type]] = {
    "localizer": ("nre_localizer", LocalizerNodeConfig),
    "map_builder": ("nre_map_builder", BuilderNodeConfig),
}


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser("config", help="the parameters with defaults and descriptions, as ROS YAML")
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    dump = actions.add_parser("dump", help="print the parameter file of a node, to be edited and given as params_file")
    dump.add_argument("--node", choices=NODES, default="localizer", help="whose parameters (default: %(default)s)")


def run(args: argparse.Namespace) -> int:
    print(parameter_file(args.node), end="")
    return 0


def parameter_file(node: str) -> str:
    """Text of ``config/NODE.yaml``: every parameter with its default under a comment that describes it."""
    name, config = NODES[node]
    lines = [
        f"# Parameters of {name} with their defaults; written by: nre_ros config dump --node {node}",
        '# "/**" means the node in whatever namespace; rclpy matches a bare node name in the root namespace alone.',
        "/**:",
        "  ros__parameters:",
    ]
    group: list[str] = []
    for parameter in parameters(config):
        *path, leaf = parameter.name.split(".")
        shared = len(list(takewhile(lambda pair: pair[0] == pair[1], zip(path, group, strict=False))))
        lines += [f"{_indent(depth)}{path[depth]}:" for depth in range(shared, len(path))]
        group = path
        indent = _indent(len(path))
        lines += [f"{indent}# {_comment(parameter)}", f"{indent}{leaf}: {_yaml(parameter.default)}"]
    return "\n".join(lines) + "\n"


def _indent(depth: int) -> str:
    return "  " * (depth + 2)


def _comment(parameter: Parameter) -> str:
    limits = []
    if parameter.choices:
        limits.append("one of " + ", ".join(parameter.choices))
    elif parameter.low is not None and parameter.high is not None:
        limits.append(f"{_yaml(parameter.low)} to {_yaml(parameter.high)}")
    elif parameter.low is not None:
        limits.append(f"at least {_yaml(parameter.low)}")
    elif parameter.high is not None:
        limits.append(f"at most {_yaml(parameter.high)}")
    if parameter.live:
        limits.append("live")
    return parameter.description + (f" ({'; '.join(limits)})" if limits else "")


def _yaml(value: Value) -> str:
    """Scalars that no YAML reader takes for another type: strings quoted, floats with a point."""
    if isinstance(value, tuple):
        return "[" + ", ".join(_yaml(v) for v in value) + "]"
    if isinstance(value, float):
        mantissa, e, exponent = repr(value).partition("e")
        return (mantissa if "." in mantissa else f"{mantissa}.0") + e + exponent
    return json.dumps(value)
