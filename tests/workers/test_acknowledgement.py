"""An acknowledgement that fails while Redis is away takes no place of the worker."""

import importlib
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from tests.redis_server import RedisServer
from workers.acknowledgement import release_places_of_failed_acks

kombu: Any = importlib.import_module("kombu")


def test_a_message_whose_ack_failed_no_longer_counts(queue: RedisServer) -> None:
    release_places_of_failed_acks()
    received: list[Any] = []
    with kombu.Connection(queue.start(), transport_options={"socket_connect_timeout": 1}) as connection:
        channel = connection.channel()
        channel.basic_qos(0, 1, False)
        simple_queue = kombu.Queue("jobs")
        producer = kombu.Producer(channel, auto_declare=True)
        for number in (1, 2):
            producer.publish({"number": number}, routing_key="jobs", declare=[simple_queue])
        with kombu.Consumer(channel, [simple_queue], on_message=received.append, prefetch_count=1):
            connection.drain_events(timeout=20)
            assert not channel.qos.can_consume()
            queue.kill()
            with pytest.raises((RedisConnectionError, OSError)):
                received[0].ack()
            assert channel.qos.can_consume()
            queue.start()
