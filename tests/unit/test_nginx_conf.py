from pathlib import Path

from nginx_conf import Proxy, nginx_conf

PUBLISHED = Path(__file__).parents[2] / "deploy" / "nginx" / "converter.conf"


def test_the_published_configuration_is_what_the_defaults_give():
    assert PUBLISHED.read_text() == nginx_conf(Proxy())


def test_the_body_limit_follows_the_gateways_limits():
    limited = Proxy(multipart_model_max_bytes=7, multipart_ref_images_max_count=3, multipart_ref_image_max_bytes=11)
    assert f"client_max_body_size {7 + 3 * 11 + 1024 * 1024};" in nginx_conf(limited)


def test_a_slow_promotion_is_waited_for():
    assert "proxy_read_timeout 91s;" in nginx_conf(Proxy(promote_timeout_ms=60_500))


def test_every_gateway_is_an_upstream_of_both_hosts():
    conf = nginx_conf(Proxy(gateways="10.0.0.5, 10.0.0.6"))
    for server in ("10.0.0.5:4000", "10.0.0.6:4000", "10.0.0.5:4001", "10.0.0.6:4001"):
        assert f"server {server};" in conf
